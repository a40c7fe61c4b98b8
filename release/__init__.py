"""Number, build, publish and sign a release: the work behind ``make release`` and the workflow ``release``."""
