"""The faces: what programs call. Names and conversions, no logic of their own."""
