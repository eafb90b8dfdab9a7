"""ModelDeployments: each converges to as many answering nodes as it wants, or to a documented end.

`decide.py` says what is wanted, `act.py` places, creates and deletes nodes, `report.py` derives the status from what then is.
"""
