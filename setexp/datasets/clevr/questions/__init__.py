"""CLEVR questions: programs and their executor, families, generator, sentences, data set."""
