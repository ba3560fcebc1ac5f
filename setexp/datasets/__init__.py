"""Where batches come from: real data, or an embedded source with the same spec.

A dataset is a plain class; `drawn.Drawn` has what those share that are drawn. Its constructor
arguments come from YAML; beyond that it offers

- `source`: "real", "procedural" or "synthetic" (data that is drawn by definition);
- `fingerprint`: a short text of everything else that determines the data;
- `sizes(split)`: sets in one pass;
- `to(device)`: where batches appear from now on;
- `batches(split, batch_size, generator, *, start, shuffle, drop_last)`: one pass. Everything random
  is a function of the generator's state at the call, or when the first batch is read (draw nothing
  from it in between), so `start=k` yields exactly the batches from the k-th on: this is all that
  resuming a run needs;
- `prepare(split)`, only where batches of a split wait for files that take long to make: makes them,
  before training begins, since a signal that asks a run to stop is only heard between its steps;
- `ragged`, only where it is true: shapes change from batch to batch, so seeds cannot be stacked;
- `scalars`, only where runs differ in them: arguments that change numbers but no shape; runs that
  differ in nothing else train as one stack;
- `vocabulary`, only where words or answers are numbered: a short hash of these numbers, which
  checkpoints keep, since weights mean nothing with others;
- `for_run(seed)`, only where a document draws new data for every run: the dataset of one run;
- `folds`, `fold(index)` and `statistics`, only where a run is a cross-validation: how many folds,
  the dataset of one, and numbers about the whole data by name, which go into the run's record.
"""
