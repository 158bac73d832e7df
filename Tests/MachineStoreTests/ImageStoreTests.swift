import DavitTesting
import Glibc
import Testing

@testable import MachineStore

@Suite struct ImageStoreTests {
    private let directory: TemporaryDirectory
    private let images: ImageStore

    init() throws {
        let directory = try TemporaryDirectory()
        self.directory = directory
        images = ImageStore(in: try MachineStore { $0 == "DAVIT_HOME" ? directory.path : nil })
    }

    private func add(_ name: String, _ content: String) throws -> StoredImage {
        try images.add(names: [name]) { try SmallFile.write($0, content) }
    }

    /// FIPS 180-4's examples, and pieces of every length around a block's.
    @Test func sums() {
        func sum(_ text: String, by length: Int = .max) -> String {
            var sum = SHA256()
            var rest = Array(text.utf8)[...]
            while !rest.isEmpty {
                Array(rest.prefix(length)).withUnsafeBytes { sum.update($0) }
                rest = rest.dropFirst(length)
            }
            return sum.digest()
        }
        #expect(sum("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        #expect(sum("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
        #expect(sum(long) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
        let million = String(repeating: "a", count: 1_000_000)
        for length in [1000, 1, 63, 64, 65, 127] {
            #expect(
                sum(million, by: length) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
        }
    }

    @Test func anImageIsFoundByNameAndNumber() throws {
        let image = try add("debian", "one")
        #expect(image.names == ["debian:latest"])
        #expect(image.id == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed")
        for name in ["debian", "debian:latest", "7692", image.id] { #expect(try images.find(name) == image) }
        for name in ["769", "mine", "debian:trixie", "7693"] {
            #expect(throws: StoreError.self) { try images.find(name) }
        }
    }

    @Test func theSameContentIsKeptOnce() throws {
        let first = try add("one", "same")
        let second = try add("two", "same")
        #expect(first.id == second.id)
        #expect(second.names == ["one:latest", "two:latest"])
        #expect(try images.all().count == 1)
        try images.remove(second, name: "one:latest")
        #expect(try images.all().map(\.names) == [["two:latest"]])
        try images.remove(try images.find("two"))
        #expect(try images.all().isEmpty)
        #expect(try Tool.run(["ls", "-A", directory["images"]]) == "tags\n")
    }

    @Test func aNameGoesToTheNewestImage() throws {
        let old = try add("mine", "old")
        let new = try add("mine", "new")
        #expect(try images.find("mine").id == new.id)
        #expect(try images.find(old.id).names.isEmpty)
    }

    @Test func whatFailsLeavesNothing() throws {
        #expect(throws: StoreError.self) {
            try images.add(names: ["mine"]) { disk in
                try SmallFile.write(disk, "half")
                throw StoreError("the disk is full")
            }
        }
        #expect(try Tool.run(["ls", "-A", directory["images"]]) == "tags\n")
    }

    @Test(arguments: ["", "a:b:c", "A", "a/b", ".a", "a:", ":a", "a b", "a\n"])
    func namesThatCannotBe(name: String) { #expect(throws: StoreError.self) { try ImageStore.fullName(name) } }
}
