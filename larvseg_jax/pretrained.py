def load_augreg(*a): pass
