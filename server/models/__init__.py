"""Model families: what turns a spec into tensors and tensors into pictures. Knows no queue."""
