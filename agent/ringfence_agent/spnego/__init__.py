"""Kerberos for HTTP as a server of Ringfence takes it: the settings, the tokens, and whom a principal stands for."""
