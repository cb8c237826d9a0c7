"""What happens when things go wrong: brokers die, networks break, programs are interrupted, servers talk nonsense."""
