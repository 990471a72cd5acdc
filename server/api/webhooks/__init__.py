"""Telling whoever asked for it that a generation has ended: signed, again and again, and never to a
place where a caller has no business.

asked      what a caller may say of it, and when that is refused
guard      which addresses may be called
messenger  one call: resolved once, pinned, signed, bounded
deliverer  calls what is due, and writes down what came of it
routes     looking at it, and having it delivered again
"""
