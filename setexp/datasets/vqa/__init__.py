"""VQA v2 on object proposals: official files to stores, stores to batches, scenes as stand-ins.

`text` and `vocabulary` number words and answers; `proposals` and `questions` read the official
files into a `store`, `majority` and `vectors` what BAN reads in addition; `prepare` does it all;
`procedural` writes official files of its own; `dataset` makes batches of what was prepared and does
not know where it came from.
"""
