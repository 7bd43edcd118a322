"""Result files: the journal and what is made from it."""
