"""Pure rendering: a `Report` in, text out. One renderer a file; `formats.FORMATS` is the table of them."""
