"""The automated researcher: ideas are searched for by agents that see a ladder's answers and never the truth."""
