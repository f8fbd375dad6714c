"""The approvers' API: JSON over HTTP, OpenID Connect tokens, one process with its own key and principal."""
