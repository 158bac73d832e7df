/// A piece of data that the loader hands Linux, beside boot_params (Linux, Documentation/arch/x86/boot.rst, "setup_data").
public struct SetupData: Equatable, Sendable {
    /// `SETUP_RNG_SEED`: bytes for the random generator, taken by Linux 6.2 and later, ignored by earlier ones.
    public static let rngSeed: UInt32 = 9

    public var type: UInt32
    public var bytes: [UInt8]

    public init(type: UInt32, bytes: [UInt8]) {
        self.type = type
        self.bytes = bytes
    }

    /// 32 bytes from the host's random generator.
    static func randomSeed() -> SetupData {
        var generator = SystemRandomNumberGenerator()
        return SetupData(type: rngSeed, bytes: (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &generator) })
    }
}
