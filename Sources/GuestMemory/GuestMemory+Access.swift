import Glibc
import HostLinux

/// A guest physical range that is not RAM in whole.
public struct NotRAM: Error, Equatable, Sendable, CustomStringConvertible {
    public let address: GuestPhysicalAddress
    /// In bytes.
    public let count: UInt64

    public init(address: GuestPhysicalAddress, count: UInt64) {
        self.address = address
        self.count = count
    }

    public var description: String { "\(count) bytes at guest physical \(address) are not all RAM" }
}

extension GuestMemory {
    /// Reads a plain value; no alignment is needed.
    @inlinable
    public func read<Value: BitwiseCopyable>(_ type: Value.Type, at address: GuestPhysicalAddress) throws(NotRAM)
        -> Value
    {
        let count = UInt64(MemoryLayout<Value>.size)
        guard let place = pointer(at: address, count: count) else { throw NotRAM(address: address, count: count) }
        // Safe: `place` is `count` bytes of mapped RAM, and any bytes are a value of a BitwiseCopyable integer or C struct.
        return place.loadUnaligned(as: type)
    }

    /// Writes a plain value; no alignment is needed.
    @inlinable
    public func write<Value: BitwiseCopyable>(_ value: Value, at address: GuestPhysicalAddress) throws(NotRAM) {
        let count = UInt64(MemoryLayout<Value>.size)
        guard let place = pointer(at: address, count: count) else { throw NotRAM(address: address, count: count) }
        // Safe: as in `read`.
        place.storeBytes(of: value, as: Value.self)
        didWrite(at: address, count: count)
    }

    /// Copies `count` bytes of guest RAM out.
    public func readBytes(at address: GuestPhysicalAddress, count: Int) throws(NotRAM) -> [UInt8] {
        guard count >= 0, let place = pointer(at: address, count: UInt64(count)) else {
            throw NotRAM(address: address, count: UInt64(clamping: count))
        }
        return [UInt8](UnsafeRawBufferPointer(start: place, count: count))
    }

    /// Copies bytes into guest RAM.
    public func write(bytes: UnsafeRawBufferPointer, at address: GuestPhysicalAddress) throws(NotRAM) {
        let count = UInt64(bytes.count)
        guard let place = pointer(at: address, count: count) else { throw NotRAM(address: address, count: count) }
        UnsafeMutableRawBufferPointer(start: place, count: bytes.count).copyMemory(from: bytes)
        didWrite(at: address, count: count)
    }

    /// Copies bytes into guest RAM.
    public func write(bytes: [UInt8], at address: GuestPhysicalAddress) throws(NotRAM) {
        var failure: NotRAM?
        bytes.withUnsafeBytes { buffer in
            do throws(NotRAM) { try write(bytes: buffer, at: address) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}

extension GuestMemory {
    /// Copies bytes into RAM that nobody has touched yet, which a write to the memfd does in less than half the time of stores: those fault
    /// on each page. Throws ENOSPC or ENOMEM if the host has no memory left, EFAULT if not all of the place is RAM.
    public func fill(_ bytes: UnsafeRawBufferPointer, at address: GuestPhysicalAddress) throws(SystemError) {
        let count = UInt64(bytes.count)
        // Files of huge pages cannot be written to.
        if fileDescriptor >= 0 && !backing.usesHugePages {
            guard let offset = fileOffset(of: address, count: count) else { throw SystemError("pwrite", code: EFAULT) }
            try writeFile(bytes, at: offset)
        } else {
            guard let place = pointer(at: address, count: count) else { throw SystemError("pwrite", code: EFAULT) }
            UnsafeMutableRawBufferPointer(start: place, count: bytes.count).copyMemory(from: bytes)
        }
        didWrite(at: address, count: count)
    }

    /// Where `count` bytes at `address` lie in the memfd; nil unless all of them are RAM.
    private func fileOffset(of address: GuestPhysicalAddress, count: UInt64) -> UInt64? {
        for region in regions {
            let offset = address.rawValue &- region.start.rawValue
            if offset < region.size { return count <= region.size &- offset ? region.fileOffset &+ offset : nil }
        }
        return nil
    }

    private func writeFile(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            // Safe: the bytes from `done` to `bytes.count` are the buffer's own.
            let put = pwrite(
                fileDescriptor, bytes.baseAddress.unsafelyUnwrapped + done, bytes.count - done,
                off_t(offset) + off_t(done))
            if put < 0 && errno == EINTR { continue }
            guard put > 0 else { throw SystemError("pwrite", code: put < 0 ? errno : ENOSPC) }
            done += put
        }
    }
}
