"""What make.py writes: a grammar in two languages, opinions, chorales, an orthography."""
