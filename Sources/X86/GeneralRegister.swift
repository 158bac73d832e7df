/// Numbers of the general registers in instruction encodings and in `VCPUState.generalRegisters`.
public enum GeneralRegister {
    public static let RAX = 0
    public static let RCX = 1
    public static let RDX = 2
    public static let RBX = 3
    public static let RSP = 4
    public static let RBP = 5
    public static let RSI = 6
    public static let RDI = 7
}
