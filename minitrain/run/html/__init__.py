"""report.html: what happened in a run, on one page that needs no network and no script.

`facts.py` and `scored.py` read the run's folder, `figures.py` draws, `sections.py` and `page.py` write HTML.
"""
