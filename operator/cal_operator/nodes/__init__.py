"""ComputeNodes: each converges to one running, answering, recorded instance, and when unwanted or ended to one proven gone.

The money safety lives here: intent before spend, adopt before create, record first, delete until proven gone.
"""
