@testable import BootLoaders

/// A bzImage of the smallest size that the protocol allows, to be spoilt by tests.
struct TinyBzImage {
    var image: ByteImage

    static let loadAddress: UInt64 = 0x100_0000
    static let initSize: UInt32 = 0x80_0000
    /// Four setup sectors follow the boot sector.
    static let payloadOffset = 5 * 512
    static let payload = Array("the protected-mode kernel comes here and is bytes to the loader ".utf8)

    init() {
        image = ByteImage(size: Self.payloadOffset + Self.payload.count)
        image.write(UInt8(4), at: 0x1F1)
        image.write(UInt32(Self.payload.count / 16), at: 0x1F4)
        image.write(UInt16(0xAA55), at: 0x1FE)
        image.write([0xEB, 0x6A] as [UInt8], at: 0x200)
        image.write("HdrS".utf8, at: 0x202)
        image.write(UInt16(0x020F), at: 0x206)
        image.write(UInt16(0x300), at: 0x20E)
        image.write("6.1.0-tiny (davit) #1\0".utf8, at: 0x500)
        image.write(UInt8(1), at: 0x211)
        image.write(UInt32(0x10_0000), at: 0x214)
        image.write(UInt32(0x7FFF_FFFF), at: 0x22C)
        image.write(UInt32(0x20_0000), at: 0x230)
        image.write(UInt8(1), at: 0x234)
        image.write(UInt16(1), at: 0x236)
        image.write(UInt32(2047), at: 0x238)
        image.write(Self.loadAddress, at: 0x258)
        image.write(Self.initSize, at: 0x260)
        image.write(Self.payload, at: Self.payloadOffset)
    }

    /// The same with one field changed.
    func with<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value, at offset: Int) -> TinyBzImage {
        var copy = self
        copy.image.write(value, at: offset)
        return copy
    }

    var file: KernelFile { KernelFile(bytes: image.bytes, name: "vmlinuz", flag: "--kernel") }
}
