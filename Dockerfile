# headwater as a container: one static binary, no shell, not root.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/headwater ./cmd/headwater

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/headwater /usr/bin/headwater
EXPOSE 8080
ENTRYPOINT ["/usr/bin/headwater"]
CMD ["run", "--config", "/etc/headwater/headwater.yml"]
