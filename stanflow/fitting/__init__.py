"""From a Stan model to a fit: start, wire, build, train, assess."""
