# headwater as a container: one static binary, no shell, not root.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/headwater ./cmd/headwater

FROM scratch
# The certificate authorities that sslmode=verify-full, TLS to Kafka and the registry trust.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/headwater /usr/bin/headwater
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/bin/headwater"]
CMD ["run", "--config", "/etc/headwater/headwater.yml"]
