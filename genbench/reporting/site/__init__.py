"""A static leaderboard of several people's bundles: an index, and a page for each dataset and protocol that ranks.

DIR/index.html            the leaderboards, the submissions, what was checked
DIR/DATASET-...html       a leaderboard: tables, pictures, how to repeat it
DIR/rows.csv              the tidy rows
DIR/genbench-site.json    the files of the site, so that a later one may replace it

The numbers are those of `genbench report` over the imported runs: the same rows, tables and pages. Links are relative.
"""
