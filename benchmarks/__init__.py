"""Do the backends agree, and how fast is each? See ``benchmarks/README.md``."""
