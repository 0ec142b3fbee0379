"""Packs: a dataset's encoded frames and annotations copied into a few LMDB files.

``manifest`` names the files of a pack, ``records`` what is in them; ``plan`` and ``writer`` make a
pack, ``environments`` and ``reader`` read it, ``verify`` and ``examine`` look for damage.
"""
