import Glibc

/// An image: a disk that is never written to, and from which machines begin.
public struct StoredImage: Equatable, Sendable {
    /// SHA-256 of the disk's file, in hexadecimal digits.
    public let id: String
    /// The disk, a qcow2 image.
    public let disk: String
    /// What the file takes, in bytes.
    public let size: Int64
    /// Seconds since 1970.
    public let created: Int64
    /// `debian:bookworm` and the like, sorted.
    public var names: [String]
}

/// Where images are kept, by content: a directory for each, whole or not there, and a file for each name that says which it means.
public struct ImageStore: Sendable {
    private let path: String
    private static let passing = "."

    public init(in store: MachineStore) { path = store.path + "/images" }

    /// A name without a tag has `latest`.
    public static func fullName(_ text: String) throws(StoreError) -> String {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        let isGood = parts.allSatisfy { part in
            guard let first = part.utf8.first, part.utf8.count <= 100 else { return false }
            func isPlain(_ byte: UInt8) -> Bool {
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
            }
            return isPlain(first) && part.utf8.allSatisfy { isPlain($0) || "._-".utf8.contains($0) }
        }
        guard isGood, parts.count <= 2 else {
            throw StoreError(
                "'\(text)' cannot be an image's name; give NAME or NAME:TAG in small letters, digits, '.', '_', '-'")
        }
        return parts.count == 2 ? text : text + ":latest"
    }

    /// All images, the newest first.
    public func all() throws(StoreError) -> [StoredImage] {
        var names: [String: [String]] = [:]
        for name in try entries(tags).sorted() {
            if let id = SmallFile.read(tags + "/" + name) { names[id, default: []].append(name) }
        }
        let ids = try entries(path).filter { $0.utf8.count == 64 && !$0.hasPrefix(Self.passing) }
        return ids.compactMap { id in
            let disk = "\(path)/\(id)/\(Self.diskFile)"
            var status = stat()
            guard stat(disk, &status) == 0 else { return nil }
            return StoredImage(
                id: id, disk: disk, size: Int64(status.st_blocks) * 512, created: Int64(status.st_mtim.tv_sec),
                names: names[id] ?? [])
        }.sorted { $0.created > $1.created }
    }

    /// By name, or by at least four of its first digits.
    public func find(_ text: String) throws(StoreError) -> StoredImage {
        let all = try all()
        if let name = try? Self.fullName(text), let found = all.first(where: { $0.names.contains(name) }) {
            return found
        }
        let found = text.utf8.count >= 4 ? all.filter { $0.id.hasPrefix(text) } : []
        if found.count > 1 {
            throw StoreError("'\(text)' begins the numbers of \(found.count) images; give more digits")
        }
        guard let found = found.first else {
            throw StoreError("there is no image '\(text)'; 'davit image list' shows those that are")
        }
        return found
    }

    /// Adds the disk that `make` puts at the path it is given, under names. Nothing of it stays if that fails.
    public func add(names: [String], make: (String) throws -> Void) throws -> StoredImage {
        let names = try names.map(Self.fullName)
        try makeDirectories()
        let fresh = "\(path)/\(Self.passing)new-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        guard mkdir(fresh, 0o700) == 0 else { throw StoreError.host("make a directory in '\(path)'") }
        var isDone = false
        defer { if !isDone { MachineStore.removeTree(fresh) } }
        try make(fresh + "/" + Self.diskFile)
        chmod(fresh + "/" + Self.diskFile, 0o400)
        let id = try Self.digest(fresh + "/" + Self.diskFile)
        if rename(fresh, "\(path)/\(id)") == 0 {
            isDone = true
        } else if errno != ENOTEMPTY && errno != EEXIST {
            throw StoreError.host("keep image '\(names[0])'")
        }
        for name in names { try SmallFile.write(tags + "/" + name, id) }
        return try find(names[0])
    }

    /// Gives an image a name, which another loses.
    public func tag(_ image: StoredImage, _ name: String) throws(StoreError) {
        try SmallFile.write(tags + "/" + Self.fullName(name), image.id)
    }

    /// Whether the disk is still the one that the image's number tells of.
    public func isWhole(_ image: StoredImage) throws(StoreError) -> Bool { try Self.digest(image.disk) == image.id }

    /// Takes the right to make an image by long work, which one process has at a time; `wait` is called once if another has it.
    public func lockForPull(wait: () -> Void) throws(StoreError) -> PullLock {
        try makeDirectories()
        return try PullLock(in: path, wait: wait)
    }

    /// Takes a name away, or all of them with the image.
    public func remove(_ image: StoredImage, name: String? = nil) throws(StoreError) {
        for each in name.map({ [$0] }) ?? image.names { unlink(tags + "/" + each) }
        guard name == nil || image.names == [name] else { return }
        let gone = "\(path)/\(Self.passing)gone-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        guard rename("\(path)/\(image.id)", gone) == 0 else { throw .host("remove image '\(image.id.prefix(12))'") }
        MachineStore.removeTree(gone)
    }

    private static let diskFile = "disk.qcow2"
    private var tags: String { path + "/tags" }

    private func makeDirectories() throws(StoreError) {
        try MachineStore.makeDirectories(tags)
        for entry in try entries(path) where MachineStore.isLeft(entry) { MachineStore.removeTree(path + "/" + entry) }
    }

    private func entries(_ path: String) throws(StoreError) -> [String] { try MachineStore.entries(of: path) }

    private static func digest(_ path: String) throws(StoreError) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .host("read '\(path)'") }
        defer { close(descriptor) }
        var sum = SHA256()
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count >= 0 else { throw .host("read '\(path)'") }
            if count == 0 { return sum.digest() }
            buffer.withUnsafeBytes { sum.update(UnsafeRawBufferPointer(rebasing: $0.prefix(count))) }
        }
    }
}
