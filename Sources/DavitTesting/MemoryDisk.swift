import Glibc
import MachineModel
import Synchronization

/// A disk in memory that does its work inside `submit`, or, while it is held back, when the test says so.
public final class MemoryDisk: BlockDevice {
    private struct State {
        var bytes: [UInt8]
        var isHeld = false
        var held: [BlockRequest] = []
        var flushes = 0
        var failure: BlockError?
    }

    public let size: UInt64
    public let blockSize: Int
    public let physicalBlockSize = 4096
    public let isReadOnly: Bool
    /// Guards contents and what is held back; not held while a completion runs.
    private let state: Mutex<State>

    /// `size` in bytes.
    public init(size: Int, blockSize: Int = 512, isReadOnly: Bool = false) {
        self.size = UInt64(size)
        self.blockSize = blockSize
        self.isReadOnly = isReadOnly
        state = Mutex(State(bytes: [UInt8](repeating: 0, count: size)))
    }

    public var bytes: [UInt8] {
        get { state.withLock { $0.bytes } }
        set { state.withLock { $0.bytes = newValue } }
    }

    public var flushes: Int { state.withLock { $0.flushes } }

    /// Every request fails with it, until it is nil again.
    public var failure: BlockError? {
        get { state.withLock { $0.failure } }
        set { state.withLock { $0.failure = newValue } }
    }

    /// Requests that wait.
    public var heldCount: Int { state.withLock { $0.held.count } }

    /// From here on requests wait.
    public func hold() { state.withLock { $0.isHeld = true } }

    /// Does what waits, and lets requests through again.
    public func release() {
        let held = state.withLock { state in
            state.isHeld = false
            defer { state.held = [] }
            return state.held
        }
        submit(held)
    }

    public func submit(_ requests: [BlockRequest]) {
        for request in requests {
            let isHeld = state.withLock { state in
                if state.isHeld { state.held.append(request) }
                return state.isHeld
            }
            if !isHeld { request.completion(carryOut(request.operation)) }
        }
    }

    public func close() {}

    private func carryOut(_ operation: BlockRequest.Operation) -> Result<Void, BlockError> {
        state.withLock { state in
            if let failure = state.failure { return .failure(failure) }
            switch operation {
            case .read(let offset, let buffers):
                var place = Int(offset)
                guard place + buffers.count <= state.bytes.count else { return .failure(.outOfRange) }
                for piece in buffers.pieces {
                    state.bytes.withUnsafeBytes { _ = memcpy(piece.iov_base, $0.baseAddress! + place, piece.iov_len) }
                    place += piece.iov_len
                }
            case .write(let offset, let buffers):
                var place = Int(offset)
                guard place + buffers.count <= state.bytes.count else { return .failure(.outOfRange) }
                for piece in buffers.pieces {
                    state.bytes.withUnsafeMutableBytes {
                        _ = memcpy($0.baseAddress! + place, piece.iov_base, piece.iov_len)
                    }
                    place += piece.iov_len
                }
            case .flush: state.flushes += 1
            case .discard(let offset, let count), .writeZeroes(let offset, let count, _):
                guard offset + count <= UInt64(state.bytes.count) else { return .failure(.outOfRange) }
                for place in Int(offset)..<Int(offset + count) { state.bytes[place] = 0 }
            }
            return .success(())
        }
    }
}
