"""ComputePools: each says whether one can buy through it, counts what runs in it, and goes only after its nodes."""
