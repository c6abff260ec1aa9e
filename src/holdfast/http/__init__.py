"""HTTP towards vendors: the only place that knows an HTTP library.

`session.Http` is one provider's connection, `transports` carries its bytes, `errors` says what a failed exchange means,
`tokens` keeps OAuth tokens that all processes share, `wire` turns values into bytes and back.
"""
