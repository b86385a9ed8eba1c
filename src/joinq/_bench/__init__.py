"""`python -m joinq bench`: joinq beside the stdlib's queues, other packages, and what limits all of them."""
