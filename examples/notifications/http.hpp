// SPDX-License-Identifier: Apache-2.0
// The little of HTTP/1.1 that a notification needs: one POST on a connection of its own, and the status of the answer.
// It blocks its thread up to a time limit, as the clients of most services do.
#pragma once

#include <cerrno>
#include <charconv>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "files.hpp"

namespace notify {

/// Percent-encodes a part of a path, so that no byte of it means anything else in the request.
inline std::string url_encoded(std::string_view text) {
    static constexpr std::string_view plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~";
    std::string encoded;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (plain.find(c) != std::string_view::npos)
            encoded += c;
        else
            encoded.append("%").append(1, "0123456789ABCDEF"[byte / 16]).append(1, "0123456789ABCDEF"[byte % 16]);
    }
    return encoded;
}

/// A server, by its "HOST:PORT". All but the constructor is thread-safe.
class http_server {
  public:
    /// Waiting for the server once takes `limit` at most. Throws std::runtime_error if there is no such host.
    http_server(const std::string& where, std::chrono::milliseconds limit)
        : where_(where), limit_(limit), addresses_(nullptr, ::freeaddrinfo) {
        const auto colon = where.rfind(':');
        if (colon == std::string::npos || colon == 0 || colon + 1 == where.size())
            throw std::runtime_error(where + " is no HOST:PORT");
        std::string host = where.substr(0, colon);
        if (host.starts_with('[') && host.ends_with(']')) // an IPv6 address
            host = host.substr(1, host.size() - 2);
        addrinfo hints{}, *found = nullptr;
        hints.ai_socktype = SOCK_STREAM;
        if (const int error = ::getaddrinfo(host.c_str(), where.c_str() + colon + 1, &hints, &found); error != 0)
            throw std::runtime_error(where + ": " + ::gai_strerror(error));
        addresses_.reset(found);
    }

    /// A connection. Throws std::system_error if nobody accepts it.
    descriptor connect() const {
        int error = 0;
        const timeval limit{limit_.count() / 1000, limit_.count() % 1000 * 1000};
        for (const addrinfo* a = addresses_.get(); a != nullptr; a = a->ai_next) {
            descriptor socket(::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol));
            if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
                ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 && // of connect, too
                ::connect(socket.get(), a->ai_addr, a->ai_addrlen) == 0)
                return socket;
            error = errno == EINPROGRESS ? ETIMEDOUT : errno;
        }
        fail(error, "cannot connect to " + where_);
    }

    /// Sends `body` and gives the status of the answer. Throws std::runtime_error if there is none: then the server may
    /// have taken it or not.
    int post(const std::string& path, std::string_view body) const {
        const descriptor socket = connect();
        std::string data = "POST " + path + " HTTP/1.1\r\nHost: " + where_ + "\r\nContent-Type: text/plain\r\n" +
                           "Content-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n";
        data += body;
        for (std::string_view rest = data; !rest.empty();) {
            const auto n = ::send(socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
            if (n < 0)
                break; // but the server may have said why it takes no more
            rest.remove_prefix(static_cast<std::size_t>(n));
        }
        return status_in(receive_head(socket));
    }

  private:
    std::string receive_head(const descriptor& socket) const {
        const auto deadline = std::chrono::steady_clock::now() + limit_;
        std::string head;
        char chunk[2048];
        do {
            const auto n = ::recv(socket.get(), chunk, sizeof chunk, 0);
            if (n < 0 && head.empty())
                fail(errno == EAGAIN ? ETIMEDOUT : errno, "no answer");
            if (n <= 0)
                break;
            head.append(chunk, static_cast<std::size_t>(n));
        } while (head.find("\r\n\r\n") == std::string::npos && std::chrono::steady_clock::now() < deadline);
        return head;
    }

    static int status_in(const std::string& head) {
        int status = 0; // as in "HTTP/1.1 200 OK"
        if (!head.starts_with("HTTP/1.") || head.size() < 12 ||
            std::from_chars(head.data() + 9, head.data() + 12, status).ptr != head.data() + 12)
            throw std::runtime_error(head.empty() ? "no answer" : "no answer of HTTP/1");
        return status;
    }

    const std::string where_;
    const std::chrono::milliseconds limit_;
    std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses_;
};

} // namespace notify
