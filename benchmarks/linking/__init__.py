"""Producers beside each other on links of different length: what `links.py` is made of."""
