"""Pictures that an evaluated run writes beside its record.

A figure is an object built from YAML and called once, after the final evaluation:
`figure(task, dataset, folder, generator)` returns the paths of the PNG files it wrote. It shows the
first sets of the test split, the same for every model, and changes no random state but that of its
generator. Texts with the same content (`.md`, `.json`) lie beside the PNG files. Without Matplotlib
(the extra `plots`) there are no pictures, and a warning says so. What each is made for stands in
`needs`.
"""
