"""The built-in issuer: who someone is, said in signed tokens. OAuth 2.0 and OpenID Connect.

RFC 6749 with RFC 9700's rules (authorization code with PKCE only, rotating refresh tokens), RFC 7523
for services, RFC 9068 access tokens. An installation with an issuer of its own does without it.
"""
