import Testing
import VMRuntime

@Suite struct ByteCountTests {
    @Test(
        arguments: [
            ("512", 512 << 20), ("512M", 512 << 20), ("512m", 512 << 20), ("512MiB", 512 << 20), ("2G", 2 << 30),
            ("1t", 1 << 40), ("4096K", 4 << 20), ("65536B", 65536), ("0", 0),
        ] as [(String, UInt64)])
    func sizesAsPeopleWriteThem(text: String, bytes: UInt64) {
        #expect(ByteCount.parse(text) == bytes)
    }

    @Test(arguments: [
        "", "M", "-1", "1.5G", "12Q", "0x100", "99999999999999999999", "18446744073709551615M", "1 G", "٣",
    ])
    func nonsenseIsNoSize(text: String) {
        #expect(ByteCount.parse(text) == nil)
    }

    @Test func sizesAreShownInTheLargestUnitThatDividesThem() {
        #expect(ByteCount.describe(512 << 20) == "512 MiB")
        #expect(ByteCount.describe(3 << 30) == "3 GiB")
        #expect(ByteCount.describe(1000) == "1000 bytes")
        #expect(ByteCount.describe(0) == "0 bytes")
    }
}
