"""The page on which astronomers grade candidates: catalogue in, static offline page out.

`catalogue` reads what a search left, `pictures` draws its stamps, `order` lays out who is shown when (blinded, with
repeats and planted objects), `build` writes the page. The browser's side is plain JavaScript in this folder, put into
the page as it is built.
"""
