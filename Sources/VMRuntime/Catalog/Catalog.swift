/// Everything that a machine can be given by name. Help texts, validation and the generated documentation come from these arrays.
public enum Catalog {}
