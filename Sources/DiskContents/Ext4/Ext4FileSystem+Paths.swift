extension Ext4FileSystem {
    private static let maximumDirectorySize: UInt64 = 64 << 20
    /// As many links as Linux follows.
    private static let maximumLinks = 40

    /// Names and inode numbers, without `.` and `..` (Linux: Documentation/filesystems/ext4/directory.rst). The inner nodes of a hashed
    /// directory look like empty blocks.
    func entries(of directory: Ext4Inode) throws(DiskContentsError) -> [(name: String, inode: UInt32)] {
        guard directory.kind == .directory else { throw .damaged("a file where a directory should be") }
        let bytes = try contents(of: directory, limit: Self.maximumDirectorySize, name: "a directory")
        var found: [(name: String, inode: UInt32)] = []
        var place = 0
        while place <= bytes.count - 8 {
            let inode = bytes.number(place, as: UInt32.self)
            let length = Int(bytes.number(place + 4, as: UInt16.self))
            let nameLength = Int(bytes[place + 6])
            // 0 and 65535 stand for a whole block of 64 KiB.
            let step = length == 0 || length == 65535 ? 65536 - place % 65536 : length
            guard step >= 8, nameLength <= step - 8, place + 8 + nameLength <= bytes.count else {
                throw .damaged("a directory of its file system")
            }
            let name = String(decoding: bytes[place + 8..<place + 8 + nameLength], as: UTF8.self)
            if inode != 0, nameLength > 0, name != ".", name != ".." { found.append((name, inode)) }
            place += step
        }
        return found
    }

    /// What a path leads to, over symbolic links; from the root, as an absolute link's target is.
    func find(_ path: String) throws(DiskContentsError) -> Ext4Inode {
        var links = 0
        var trail = [try root]
        var rest = Self.split(path)
        while let name = rest.popLast() {
            if name == "." { continue }
            if name == ".." {
                if trail.count > 1 { trail.removeLast() }
                continue
            }
            let directory = trail[trail.count - 1]
            guard directory.kind == .directory,
                let entry = try entries(of: directory).first(where: { $0.name == name })
            else { throw .notFound(path) }
            let found = try inode(entry.inode)
            guard found.kind == .link else {
                trail.append(found)
                continue
            }
            links += 1
            guard links <= Self.maximumLinks else { throw .damaged("\(path) is a loop of symbolic links") }
            let target = try target(of: found)
            if target.hasPrefix("/") { trail.removeSubrange(1...) }
            rest += Self.split(target)
        }
        return trail[trail.count - 1]
    }

    /// The parts, the last one first.
    private static func split(_ path: String) -> [String] { path.split(separator: "/").reversed().map(String.init) }

    /// A whole file; nil if there is none of that name.
    func file(_ path: String, limit: UInt64) throws(DiskContentsError) -> [UInt8]? {
        let inode: Ext4Inode
        do throws(DiskContentsError) { inode = try find(path) } catch {
            if case .notFound = error { return nil }
            throw error
        }
        return inode.kind == .file ? try contents(of: inode, limit: limit, name: path) : nil
    }

    /// Names in a directory; none if there is no such directory.
    func names(in path: String) throws(DiskContentsError) -> [String] {
        let inode: Ext4Inode
        do throws(DiskContentsError) { inode = try find(path) } catch {
            if case .notFound = error { return [] }
            throw error
        }
        return inode.kind == .directory ? try entries(of: inode).map(\.name) : []
    }
}
