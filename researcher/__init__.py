"""A testbed for automated weak-to-strong research: ideas are trained where no truth is, judged where no idea runs, and
searched for by agents that see a ladder's answers and never the truth.

  python -m researcher check FILE
  python -m researcher score FILE --track=t2 --workdir=runs/researcher
"""
