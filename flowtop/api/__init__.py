"""The library: what `import flowtop` offers. Its manual is flowtop/docs/library.md; names not there may change."""
