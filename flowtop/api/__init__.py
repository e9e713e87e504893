"""The library: the names of `import flowtop`. The manual is flowtop/docs/library.md; names not in it may change."""
