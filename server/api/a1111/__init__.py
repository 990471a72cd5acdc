"""The A1111 web UI's `/sdapi/v1`: the same generations, behind the door that its clients know."""
