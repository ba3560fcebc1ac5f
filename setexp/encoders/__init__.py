"""Networks that turn a set, a graph or an image into what a decoder reads; and parts of these.

Most yield an `Encoding`: a vector, elements, or both. Permutations yield assignments of elements to
positions, attention on what a question asks about an `Attended`, an image classifier scores.
"""
