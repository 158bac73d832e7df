import CDavit
import Glibc

/// How owners are told to the guest and taken from it. Root's are the same on both sides. Any other user of the host's is the guest's
/// root, which is all that this user's rights can stand for; what belongs to others on the host is nobody's.
struct Owners: Sendable {
    private static let nobody: UInt32 = 65534
    private static let unchanged = uid_t.max

    private let user = geteuid()
    private let group = getegid()

    /// Files may be given to others.
    var areIdentical: Bool { user == 0 }

    func guestUser(_ id: uid_t) -> UInt32 { areIdentical ? id : id == user ? 0 : Self.nobody }
    func guestGroup(_ id: gid_t) -> UInt32 { areIdentical ? id : id == group ? 0 : Self.nobody }

    func hostUser(_ id: UInt32?) throws(FileError) -> uid_t { try host(id, user) }
    func hostGroup(_ id: UInt32?) throws(FileError) -> gid_t { try host(id, group) }

    private func host(_ id: UInt32?, _ own: UInt32) throws(FileError) -> UInt32 {
        guard let id else { return Self.unchanged }
        if areIdentical { return id }
        guard id == 0 else { throw FileError(EPERM) }
        return own
    }
}
