"""The bundled policies: one folder an axis, one file a policy, found through entry points like anyone's."""
