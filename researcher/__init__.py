"""A testbed for automated weak-to-strong research: ideas are trained where no truth is, and judged where no idea runs.

  python -m researcher check FILE
  python -m researcher score FILE --track=t2 --workdir=runs/researcher
"""
