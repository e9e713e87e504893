"""The filter language: text → `Filter`, the same on the command line, behind `/`, in batch mode and for exports.

`grammar` says what can be written, `words` and the columns which words there are, `build` what a text means as a tree
(`tree`), `masks` which flows that is, `kernel` what of it the eBPF program can do by itself.
"""
