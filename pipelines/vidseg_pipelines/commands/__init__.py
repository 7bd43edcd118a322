"""The commands of ``vidseg``: the top floor, which may import all others."""
