"""insitu against its peers: one process, alternating round by round, medians, the same number of
threads for all, and beside them what the memory itself allows (benches/floor), measured in the same
rounds.

    python -m benches.versus                       # every row; results in benches/results/
    python -m benches.versus --only q6 --rows 1e6  # one row, smaller

`harness` times and checks, `rows/` has one file per row of the table, `report` and `chart` print.
"""
